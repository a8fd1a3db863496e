/** What stands in the place of a secret. */
export const removed = '[removed]';

/** Names of variables, fields and options whose values are secrets. */
export const secretName =
  /token|secret|passw|passphrase|credential|cookie|authorization|private[_-]?key|api[_-]?key|access[_-]?key|signature|session[_-]?key|\bauth\b/i;

/** Secrets by their form. The first group, if there is one, is kept. */
const forms: RegExp[] = [
  /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)/g,
  // user:password@ in a URL, also without a user, and without a password.
  /(\b[a-z][a-z0-9+.-]*:\/\/)[^\s/?#@"'<>]*@/gi,
  // user:password as an option: of curl, of nc, of ssh through a proxy.
  /((?:^|\s)(?:-[uUP]|--user|--proxy-user|--proxy-auth)[ =]+)[^\s:@/]+:\S+/g,
  // Parameters of a URL, assignments, options, fields of JSON and YAML.
  /((?:[\w.-]*(?:token|secret|passw(?:or)?d|passphrase|credentials?|api[_-]?key|access[_-]?key|private[_-]?key|signature|\bsig\b|\bpwd\b|\bauth\b)[\w.-]*)\\?["']?\s*[:=]\s*\\?["']?)[^\s"'\\,;&]+/gi,
  /((?:--?[\w-]*(?:token|secret|password|passphrase|api-key|access-key))[ \t]+)\S+/gi,
  /((?:^|[\s"'])(?:set-)?cookie2?\s*[:=]\s*)[^\n"']*/gim,
  /((?:^|[\s"'])(?:proxy-)?authorization\s*[:=]\s*)[^\n"']*/gim,
  /(\b(?:bearer|basic|negotiate)\s+)[A-Za-z0-9._~+/=-]{6,}/gi,
  /\bcde_[A-Za-z0-9_-]{4,}/g,
  /\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4}/g,
  /\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|sk-|pk_|rk_|npm_|AKIA|ASIA|AIza|ya29\.|hf_|dop_v1_)[A-Za-z0-9._-]{8,}/g,
];

/** Text that can be no word, version or name: long, and of letters and digits mixed, as keys and tokens are. */
const longWord = /[A-Za-z0-9+/_=-]{20,}/g;
const id = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

function looksRandom(word: string): boolean {
  if (id.test(word)) return false;
  // A path, or a name of several words.
  const longest = Math.max(...word.split(/[/_-]/).map((part) => part.length));
  if (longest < 16) return false;
  const digits = word.match(/\d/g)?.length ?? 0;
  return digits >= 3 && digits / word.length > 0.05 && /[A-Za-z]/.test(word);
}

/**
 * Makes a function that removes secrets from text: those that are known, in the forms in which they travel, and everything that has
 * the form of one. It removes too much rather than too little.
 */
export function makeRedactor(known: Iterable<string>): (text: string) => string {
  const literals = [...known]
    // A shorter one is part of too many words to be looked for.
    .filter((secret) => secret.length >= 4)
    .flatMap((secret) => [
      secret,
      encodeURIComponent(secret),
      JSON.stringify(secret).slice(1, -1),
      Buffer.from(secret).toString('base64').replace(/=+$/, ''),
      Buffer.from(secret).toString('base64url'),
      Buffer.from(secret).toString('hex'),
    ])
    .sort((one, other) => other.length - one.length);
  const unique = [...new Set(literals)];
  return (text) => {
    let clean = text;
    for (const literal of unique) clean = clean.replaceAll(literal, removed);
    for (const form of forms)
      clean = clean.replace(
        form,
        (_whole, kept: unknown) => `${typeof kept === 'string' ? kept : ''}${removed}`,
      );
    return clean.replace(longWord, (word) => (looksRandom(word) ? removed : word));
  };
}
