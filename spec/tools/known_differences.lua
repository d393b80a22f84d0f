-- What is read of a file of ../shared/data otherwise than gemmi 0.5.7 reads it: what gemmi_counts.lua finds (a part of its
-- text), and why. A difference that is not listed fails, and so does an entry whose difference is gone.
local CHARGE = "columns 79-80 hold a line number (formats before 1996), which is no charge: 0 here"
local NOT_ATOMS = "a file without atoms is an error here, an empty structure there"
local CALCIUM = "an atom named CA of an amino acid without an element is its alpha carbon, not calcium, wherever its columns are"
local FOUR = "CHARMM's residue names of four letters reach into column 21; gemmi makes a chain of the fourth"

return {
  -- refused by both
  ["edge/1ake_err.cif"] = { "refused: line 43: Cartn_y 'ATOM'", "a row lacks a value" },
  ["edge/1ake_err_b.pdb"] = { "refused: line 5: an atom record ends before its coordinates", "the line is cut" },
  ["edge/ragged_1kfo.cif.gz"] = { "refused: line 245: Cartn_z '?'", "a row lacks three values" },
  ["edge/trunc_1csp.pdb"] = { "refused: line 626: an atom record ends before its coordinates", "the file is cut" },
  ["edge/trunc_1kfo.cif.gz"] = { "refused: line 803: the loop of 21 columns", "the file is cut" },

  -- refused here
  ["edge/1ake_err_a.pdb"] = { "refused: line 7: a coordinate is blank", "gemmi takes a blank coordinate for 0" },
  ["edge/corrupt_1csp.pdb.gz"] = { "refused: corrupt gzip stream", "gemmi gives what was inflated before the damage: nothing" },
  ["edge/trunc_1csp.pdb.gz"] = { "refused: the gzip stream is truncated", "gemmi gives what was inflated: 230 of 545 atoms" },
  ["edge/nan_1csp.pdb.gz"] = { "refused: line 361: the coordinate 'nan'", "gemmi takes nan and inf for 0" },
  ["edge/nul_1csp.pdb.gz"] = { "refused: line 25: a zero byte", "gemmi's line ends at the zero" },
  ["edge/1mom_min.cif"] = { "refused: no atoms (no _atom_site)", NOT_ATOMS },
  ["edge/4q9r_min.cif"] = { "refused: no atoms (no _atom_site)", NOT_ATOMS },
  ["edge/5moo_header.pdb.gz"] = { "refused: no atoms (no ATOM or HETATM record)", NOT_ATOMS },
  ["edge/ccd_component.cif"] = { "refused: no atoms (no _atom_site)", NOT_ATOMS },
  ["edge/empty.pdb"] = { "refused: the file is empty", NOT_ATOMS },
  ["edge/empty_model.pdb"] = { "refused: no atoms (no ATOM or HETATM record)", NOT_ATOMS },
  ["edge/eol.cif"] = { "refused: no atoms (no _atom_site)", NOT_ATOMS },
  ["edge/header_only.pdb"] = { "refused: no atoms (no ATOM or HETATM record)", NOT_ATOMS },
  ["edge/misc.cif"] = { "refused: no atoms (no _atom_site)", NOT_ATOMS },
  ["edge/small_molecule.cif"] = { "refused: no atoms (no _atom_site)", NOT_ATOMS .. ": crystallographers' CIF" },
  ["edge/structure_factors.cif"] = { "refused: no atoms (no _atom_site)", NOT_ATOMS },

  -- refused by gemmi
  ["edge/ensemble_err_model.pdb"] = { "gemmi refuses: Problem in line 10: duplicate MODEL number: 0", "models are counted here" },
  ["edge/models.pdb"] = { "gemmi refuses: Problem in line 3: MODEL without ENDMDL", "MODEL ends the model before it, too" },
  ["protein/1cgi_E.pdb.gz"] = { "gemmi refuses: Wrong format for charge: 13", CHARGE },
  ["protein/1cgi_I.pdb.gz"] = { "gemmi refuses: Wrong format for charge: 13", CHARGE },
  ["protein/1fc2_C.pdb.gz"] = { "gemmi refuses: Wrong format for charge: 94", CHARGE },
  ["protein/1fc2_D.pdb.gz"] = { "gemmi refuses: Wrong format for charge: 30", CHARGE },
  ["protein/1udi_E.pdb.gz"] = { "gemmi refuses: Wrong format for charge: 05", CHARGE },
  ["protein/1udi_I.pdb.gz"] = { "gemmi refuses: Wrong format for charge: 96", CHARGE },
  ["protein/2btf_A.pdb.gz"] = { "gemmi refuses: Wrong format for charge: 43", CHARGE },
  ["protein/2btf_P.pdb.gz"] = { "gemmi refuses: Wrong format for charge: 65", CHARGE },

  -- read by both
  ["edge/1cbs_insert_crlf.cif.gz"] = { "27 atoms differ", "label_comp_id and auth_comp_id differ; the label counts" },
  ["edge/1cbs_stripped.cif.gz"] = { "1 models, gemmi 0", "_atom_site without label_ columns: gemmi wants them" },
  ["edge/cols_min_1kfo.cif"] = { "1 models, gemmi 0", "_atom_site without id, alt_id and auth_ columns: gemmi wants them" },
  ["edge/cr_only_1csp.pdb.gz"] = { "1 chains, gemmi 0", "CR alone ends a line, here" },
  ["edge/defects.pdb.gz"] = { "185 residues, gemmi 186", "segment ids do not divide a residue" },
  ["edge/insertions.pdb"] = { "25 residues, gemmi 26", "segment ids do not divide a residue" },
  ["edge/end_endmdl.pdb"] = { "2 models, gemmi 1", "gemmi ends at the first END; another MODEL follows it" },
  ["edge/rter.pdb"] = { "9 residues, gemmi 5", "waters 864 to 866 come twice: what repeats is another residue" },
  ["rna/1y26.pdb.gz"] = { "172 residues, gemmi 171", "P of U 17 comes once more after the TER: another residue" },
  ["edge/lower_1csp.pdb.gz"] = { "545 atoms differ", "lower-case records have their names in upper case, here" },
  ["edge/sameresid_diffresname.pdb"] = { "1 chains, gemmi 2", FOUR },
  ["edge/resid_5_digits.pdb"] = { "5 atoms differ", FOUR },
  ["edge/xl_serial.pdb"] = { "4 atoms differ", FOUR },
  ["edge/incomplete.pdb"] = { "6 atoms differ", CALCIUM .. "; and absent B factors" },
  ["edge/nucl_res.pdb"] = { "39 atoms differ", CALCIUM },
  ["protein/1h68.pdb.gz"] = { "994 atoms differ", "DUM atoms with blank occupancy and B: 1 here as in mmCIF, 0 in gemmi" },
}
