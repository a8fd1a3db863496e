/**
 * Letters, for a character class of a `u` regular expression, that show nothing and change how others are shown: those
 * that reorder what follows (a file `a\u202egnp.exe` is shown as `aexe.png`), line separators, and deprecated format
 * controls. Joiners stay, which emoji and scripts need.
 */
export const invisibleCharacters = String.raw`\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}`;
