--- Writes the small files that the harnesses of structures, CIF, safetensors and tar start from.
--
--     build/moonfold spec/fuzz/seeds.lua        -- into spec/fuzz/corpus
package.path = "./?.lua;" .. package.path
local mf = require "moonfold"
local bcif = require "spec.support.bcif"

local function write(name, text)
  local path = "spec/fuzz/corpus/" .. name
  mf.files.make_folder(path:match "^(.*)/")
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

-- ---- PDB: one of each record that is read, altlocs, two names at one place, two models, hybrid-36 ----

local function atom(record, serial, name, alt, residue, chain, number, x, occupancy, element, charge)
  local line = "%-6s%5s %-4s%1s%3s %1s%4s    %8.3f%8.3f%8.3f%6.2f%6.2f          %2s%2s\n"
  return line:format(record, serial, name, alt, residue, chain, number, x, -x / 2, x * x / 7, occupancy, 20 + x, element,
    charge or "")
end

local PDB = table.concat {
  "HEADER    TEST PROTEIN                            01-JAN-01   1ABC              \n",
  "TITLE     A SMALL THING                                                         \n",
  "COMPND    MOL_ID: 1; MOLECULE: THING; CHAIN: A;                                 \n",
  "EXPDTA    X-RAY DIFFRACTION                                                     \n",
  "REMARK   2 RESOLUTION.    1.80 ANGSTROMS.                                       \n",
  "REMARK 350 BIOMOLECULE: 1\nREMARK 350 AUTHOR DETERMINED BIOLOGICAL UNIT: DIMERIC\n",
  "SEQRES   1 A    4  GLY MSE ALA SER                                              \n",
  "MODRES 1ABC MSE A    2  MET  SELENOMETHIONINE\n",
  "HET    SO4  A 101       5\nHETNAM     SO4 SULFATE ION\n",
  "CRYST1   40.000   50.000   60.000  90.00 100.00  90.00 P 1 21 1      4          \n",
  "MODEL        1\n",
  atom("ATOM", 99999, " N", "", "GLY", "A", 1, 1, 1, "N"), atom("ATOM", "A0000", " CA", "", "GLY", "A", 1, 2, 1, "C"),
  atom("HETATM", "A0001", "SE", "A", "MSE", "A", 2, 3, 0.4, "SE"), atom("HETATM", "A0002", "SE", "B", "MSE", "A", 2, 4, 0.6, "SE"),
  "ANISOU    2  CA  GLY A   1      100    100    100      0      0      0       C\n",
  atom("ATOM", 5, " CA", "A", "ALA", "A", 3, 5, 0.5, "C"), atom("ATOM", 6, " CA", "B", "SER", "A", 3, 6, 0.5, "C"),
  "TER       7      ALA A   3\n",
  atom("HETATM", 8, " S", "", "SO4", "A", 101, 7, 1, "S", "2-"), atom("HETATM", 9, " O", "", "HOH", "A", 201, 8, 1, "O"),
  "ENDMDL\nMODEL        2\n", atom("ATOM", 1, " N", "", "GLY", "A", 1, 9, 1, "N"), "ENDMDL\nEND\n",
}
write("pdb/records", PDB)
write("pdb/nucleotides", atom("ATOM", 1, " C4'", "", "  A", "B", "A000", 1, 1, "C") ..
  atom("ATOM", 2, " C1*", "", " DT", "", -5, 2, 1, "") .. "TER\r\n" .. atom("ATOM", "*****", " P", "", "GTP", "b", 3, 3, 1, "P"))
write("pdb/short", "atom      1  n   ala a   1       1.000   2.000   3.000\nEND\n")

-- ---- mmCIF, text and binary ----

local function cif(extra) return "data_1ABC\n_entry.id 1ABC\n" .. extra end
local ATOMS = [[
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_entity_id
_atom_site.label_seq_id
_atom_site.pdbx_PDB_ins_code
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.B_iso_or_equiv
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.pdbx_PDB_model_num
ATOM 1 N N . GLY A 1 1 ? 1.000 2.000 -3.5 1.00 10.0 5 X 1
ATOM 2 C CA A ALA A 1 2 ? 2.000 2.000 -3.5 0.40 10.0 6 X 1
ATOM 3 C CA B SER A 1 2 ? 2.500 2.000 -3.5 0.60 10.0 6 X 1
HETATM 4 P "P'" . ATP B 2 . A 4e0 2.000 -3.5 1.00 . 101 X 1
ATOM 5 C "C4'" . U C 3 1 ? 5.000 6.000 7.0 1.00 10.0 1 Y 1
ATOM 1 N N . GLY A 1 1 ? 1.000 2.000 -3.5 1.00 10.0 5 X 2
]]
local HEAD = [[
_struct.title 'A small thing''s title'
_exptl.method "X-RAY DIFFRACTION"
_pdbx_database_status.recvd_initial_deposition_date 2001-01-01
_refine.ls_d_res_high 1.8
_cell.length_a 40 _cell.length_b 50.0 _cell.length_c 60
_cell.angle_alpha 90 _cell.angle_beta 100 _cell.angle_gamma 90
_symmetry.space_group_name_H-M 'P 1 21 1'
loop_ _entity.id _entity.type _entity.pdbx_description
1 polymer
;a text
field
;
2 non-polymer ATP 3 polymer ?
loop_ _entity_poly.entity_id _entity_poly.type 1 'polypeptide(L)' 3 polyribonucleotide
loop_ _entity_poly_seq.entity_id _entity_poly_seq.num _entity_poly_seq.mon_id 1 1 GLY 1 2 ALA 1 2 SER 1 3 TRP 3 1 U
loop_ _pdbx_struct_assembly.id _pdbx_struct_assembly.details _pdbx_struct_assembly.oligomeric_details
_pdbx_struct_assembly.oligomeric_count
1 author monomeric 1
loop_ _pdbx_struct_mod_residue.label_comp_id _pdbx_struct_mod_residue.parent_comp_id MSE MET
]]
local TEXT = cif(HEAD .. ATOMS)
write("mmcif/whole", TEXT)
write("mmcif/one", cif "_atom_site.Cartn_x 1 _atom_site.Cartn_y 2 _atom_site.Cartn_z 3\n_atom_site.label_atom_id CA\n")
write("cif/whole", TEXT)
write("cif/syntax", "# a comment\r\nglobal_\r\ndata_a save_f _x.y 'it''s' save_ loop_ _l.a _l.b . ? \"q\" ;no\n" ..
  ";text\\\nfolded\\\n;\nLOOP_ _E.e\nstop_\n")

-- Every column as strings, but for numbers, whose encodings change from column to column.
local CHAINS = {
  { { kind = "IntegerPacking", byteCount = 1 } }, { { kind = "Delta" }, { kind = "IntegerPacking", byteCount = 2 } },
  { { kind = "RunLength" }, { kind = "ByteArray", type = 3 } }, { { kind = "ByteArray", type = 33 } },
  { { kind = "FixedPoint", factor = 1000 }, { kind = "Delta" }, { kind = "IntegerPacking", byteCount = 2 } },
  { { kind = "IntervalQuantization", min = -10, max = 300, numSteps = 30001 }, { kind = "ByteArray", type = 6 } },
}
local function binary(file)
  local blocks, turn = {}, 0
  for _, b in ipairs(file.blocks) do
    local categories = {}
    for _, c in ipairs(b.categories) do
      local columns = {}
      for i, name in ipairs(c.columns) do
        local values, mask, numbers = {}, {}, {}
        for row = 1, c.rows do
          local kind = c:kind(row, name)
          values[row] = c:value(row, name) or "."
          mask[row] = kind == "inapplicable" and 1 or kind == "unknown" and 2 or 0
          numbers[row] = mask[row] > 0 and 0 or tonumber(values[row])
        end
        local data
        if #numbers == c.rows and not name:find "_id$" then
          turn = turn + 1
          local whole = true
          for _, x in ipairs(numbers) do whole = whole and x == math.floor(x) end
          data = bcif.numbers(numbers, CHAINS[whole and turn % 3 + 1 or turn % 3 + 4])
        else
          data = bcif.strings(values)
        end
        columns[i] = { name = name, data = data, mask = bcif.mask(mask) }
      end
      categories[#categories + 1] = { name = c.name, rowCount = c.rows, columns = columns }
    end
    blocks[#blocks + 1] = { header = b.name, categories = categories }
  end
  return bcif.file(blocks)
end
local BINARY = binary(mf.cif.parse(TEXT))
write("bcif/whole", BINARY)
write("bcif/atoms", binary(mf.cif.parse(cif(ATOMS))))
write("cif/binary", BINARY)

-- ---- safetensors and tar ----

mf.files.make_folder "spec/fuzz/corpus/safetensors"
mf.save("spec/fuzz/corpus/safetensors/types", {
  a = mf.tensor({ { 1, 2 }, { 3, 4 } }), b = mf.tensor({ 1, 2, 3 }, { dtype = "int32" }), c = mf.zeros(0, 3), d = mf.ones(2):bool(),
}, { note = "a \"quoted\" \\ text, \195\165" })
local FOREIGN = '{"x":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[],"data_offsets":[2,3]}}'
write("safetensors/foreign", string.char(#FOREIGN) .. ("\0"):rep(7) .. FOREIGN .. "abc")

local function padded(text, width) return text .. ("\0"):rep(width - #text) end
local function member(name, text, kind)
  local owner = ("0"):rep(7) .. "\0"
  local before = padded(name, 100) .. "0000644\0" .. owner .. owner .. ("%011o\0%011o\0"):format(#text, 0)
  local after = padded((kind or "0") .. ("\0"):rep(100) .. "ustar\00000", 512 - #before - 8)
  local sum = 8 * (" "):byte()
  for byte in (before .. after):gmatch "." do sum = sum + byte:byte() end
  return before .. ("%06o\0 "):format(sum) .. after .. text .. ("\0"):rep(-#text % 512)
end
write("tar/members", table.concat {
  member("a", "abc"), member("x", "18 path=long/name\n", "x"), member("b", ""), member("L", "gnu/name\0", "L"), member("c", "z"),
  ("\0"):rep(1024),
})
