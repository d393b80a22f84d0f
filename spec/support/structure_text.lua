--- A structure as text, a line for each chain, residue and atom, numbers to the last bit: for comparing two.
-- @module spec.support.structure_text
return function(s)
  local lines = { s.id, s.title, s.method, s.date, tostring(s.resolution) }
  for _, chain in ipairs(s:chains()) do
    lines[#lines + 1] = table.concat({ chain.id, chain.entity, chain.model, chain.polymer, chain.sequence }, " ")
    for _, r in ipairs(s:residues(chain.index)) do
      lines[#lines + 1] = table.concat({ r.name, r.number, r.label, r.insertion, tostring(r.hetero) }, " ")
      for _, a in ipairs(s:residue_atoms(r.index)) do
        lines[#lines + 1] = ("%s %s %s %d"):format(a.name, a.element, a.altloc, a.serial)
        lines[#lines + 1] = ("%.17g %.17g %.17g %.17g %.17g"):format(a.x + 0, a.y + 0, a.z + 0, a.occupancy, a.b) -- no -0
      end
    end
  end
  return table.concat(lines, "\n")
end
