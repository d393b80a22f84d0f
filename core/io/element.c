/* element.c: which element an atom is of. */
#include "structure.h"
#include <string.h>

int mf__is_element(const char *symbol, int64_t bytes) {
    static const char all[] =
        " H D HE LI BE B C N O F NE NA MG AL SI P S CL AR K CA SC TI V CR MN FE CO NI CU ZN GA GE AS SE BR KR RB SR Y ZR NB MO TC RU RH PD"
        " AG CD IN SN SB TE I XE CS BA LA CE PR ND PM SM EU GD TB DY HO ER TM YB LU HF TA W RE OS IR PT AU HG TL PB BI PO AT RN FR RA AC TH"
        " PA U NP PU AM CM BK CF ES FM MD NO LR RF DB SG BH HS MT DS RG CN NH FL MC LV TS OG ";
    char wanted[5] = " ";
    if (bytes < 1 || bytes > 2) return 0;
    memcpy(wanted + 1, symbol, (size_t)bytes);
    wanted[1 + bytes] = ' ';
    return strstr(all, wanted) != NULL;
}

static int is_letter(char c) { return c >= 'A' && c <= 'Z'; }

/* No amino acid or nucleotide has other atoms of these names. */
static const char sure[] = " MG CL MN FE ZN SE BR ";

int mf__two_letter_name(const char *name) {
    if (!is_letter(name[0]) || !is_letter(name[1]) || is_letter(name[2])) return 0;
    const char wanted[5] = {' ', name[0], name[1], ' ', '\0'};
    return strstr(sure, wanted) != NULL;
}

mf_status mf__guess_element(int32_t *out, mf__names *names, const char columns[4], const char *residue, int hetero) {
    static const char two[] = " LI NA MG AL SI CL CA MN FE CO NI CU ZN GA AS SE BR RB SR MO AG CD SB BA PT AU HG PB TL SM EU GD TB YB LU ";
    const char a = columns[0], b = columns[1], wanted[5] = {' ', a, b, ' ', '\0'};
    if (is_letter(a) && is_letter(b)) {    /* a two-letter symbol begins in the first column */
        const int ion = hetero && strncmp(residue, (char[]){a, b, '\0'}, 3) == 0, alone = !is_letter(columns[2]) && columns[3] == ' ';
        const int metal = hetero && strstr(two, wanted) && !strchr("ADGE", b);
        if (ion || (alone && (metal || strstr(sure, wanted)))) return mf__names_add(names, out, columns, 2);
    }
    for (int i = 0; i < 4; i++) {
        if (!is_letter(columns[i])) continue;
        if (strchr("BCDFHIKNOPSUVWY", columns[i])) return mf__names_add(names, out, columns + i, 1);
        break;
    }
    *out = 0;
    return MF_OK;
}
