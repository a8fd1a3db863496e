/**
 * For a character class of a `u` regular expression: characters that are invisible and change how others are shown.
 * These are the ones that reorder text (a file `a\u202egnp.exe` is shown as `aexe.png`), line separators and deprecated
 * format controls, but not joiners, which emoji and some scripts need.
 */
export const invisibleCharacters = String.raw`\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}`;
