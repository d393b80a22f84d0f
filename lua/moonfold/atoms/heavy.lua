--- Heavy atoms of the standard residues, in the order of the wwPDB's Chemical Component Dictionary, without what chain ends
-- alone have (OXT, OP3).
--
--     heavy.ALA --> { "N", "CA", "C", "O", "CB" }

local AMINO_ACIDS = {
  ALA = "CB", ARG = "CB CG CD NE CZ NH1 NH2", ASN = "CB CG OD1 ND2", ASP = "CB CG OD1 OD2", CYS = "CB SG",
  GLN = "CB CG CD OE1 NE2", GLU = "CB CG CD OE1 OE2", GLY = "", HIS = "CB CG ND1 CD2 CE1 NE2", ILE = "CB CG1 CG2 CD1",
  LEU = "CB CG CD1 CD2", LYS = "CB CG CD CE NZ", MET = "CB CG SD CE", PHE = "CB CG CD1 CD2 CE1 CE2 CZ", PRO = "CB CG CD",
  SER = "CB OG", THR = "CB OG1 CG2", TRP = "CB CG CD1 CD2 NE1 CE2 CE3 CZ2 CZ3 CH2", TYR = "CB CG CD1 CD2 CE1 CE2 CZ OH",
  VAL = "CB CG1 CG2",
}
local BASES = {
  A = "N9 C8 N7 C5 C6 N6 N1 C2 N3 C4", C = "N1 C2 O2 N3 C4 N4 C5 C6", G = "N9 C8 N7 C5 C6 O6 N1 C2 N2 N3 C4",
  U = "N1 C2 O2 N3 C4 O4 C5 C6", T = "N1 C2 O2 N3 C4 O4 C5 C7 C6",
}

local M = {}

local function put(name, text)
  M[name] = {}
  for atom in text:gmatch "%S+" do table.insert(M[name], atom) end
end

for name, side_chain in pairs(AMINO_ACIDS) do put(name, "N CA C O " .. side_chain) end
for letter, base in pairs(BASES) do
  if letter ~= "T" then put(letter, "P OP1 OP2 O5' C5' C4' O4' C3' O3' C2' O2' C1' " .. base) end
  put("D" .. letter, "P OP1 OP2 O5' C5' C4' O4' C3' O3' C2' C1' " .. base)
end

return M
