import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

/**
 * Words that this code once used for things that have a name in the field. CONTRIBUTING.md asks for plain modern English; this
 * keeps the old words from coming back.
 */
const rejected: Record<string, RegExp> = {
  'fix, repair, resolve': /\bmend(s|ed|ing)?\b|\bcure[sd]?\b|\bput(s|ting)? right\b/i,
  drift: /\bamiss\b/i,
  'in progress': /\bunder[- ]way\b/i,
  'rejected, evicted, force-deleted':
    /\bturn(s|ed|ing)? (\w+ )?away\b|\bsen[dt]s? away\b|\b(struck|strikes?) off\b/i,
  draining: /\btak(es?|ing) nobody\b|\bserves? browsers nothing\b/i,
  'allowed, authorized': /\blet(s|ting)? in\b|\bwho may\b/i,
  unreachable: /\b(is|are|was|were|been) away\b/i,
  'end reason, cause': /befell|befall|epitaph|\bfates?\b/i,
  'request interceptor, loopback listener': /doorkeeper|own[- ]?door/i,
  'require direct, re-establish, signal, candidate':
    /\binsist(s|ed|ing)?\b|\b(meet|meets|met) again\b|prospect/i,
  'apply, handover': /\bobey(s|ed|ing)?\b|\bhand(s|ed|ing)? down\b/i,
  'access revocation, account status': /\bstanding\b|Standing\b|standing[A-Z]/,
  'session registry': /\breceptions?\b|Reception/,
  'readers, reporter': /\bseers?\b|\btellers?\b/i,
  'failure scenarios': /provocation/i,
  'max…, min…': /\b(most|least)[A-Z]\w*/,
  'a specific name': /\bPlace\b(?!holder)|\bKept\b/,
  'an empty state that says what would appear': /(['"`>])Nothing\.(['"`<])/,
  'is noticeable': /\bis felt\b/i,
  'modern words':
    /\bany more\b|\bwhoever\b|\bin one step\b|\bbut for\b|\banew\b|\bfor ever\b|\blest\b|\b(there|where)(of|in|upon|with)\b|\bhence(forth)?\b|\bof which there\b|\bat the most\b|\blikewise\b|\bshall\b/i,
};

/** Names on the wire and in the database, which others rely on: an API field, a JSON field, a route, keys of stored state. */
const stableNames = /\bmostLevel\b|\bleastMs\b|\bterminals\/standing\b|\bfate\??: |'fate'/g;

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const own = 'tests/english.test.ts';

test('sources and docs use the words of the field', () => {
  const files = execFileSync('git', ['ls-files', '-z'], { cwd: root, encoding: 'utf8' })
    .split('\0')
    .filter((file) => /\.(tsx?|mjs|md|ya?ml|sh|sql|html|css|tpl)$|^\.ci\/run$/.test(file) && file !== own)
    // Migrations that were published are never edited.
    .filter((file) => !/^migrations\/000[1-8]/.test(file));
  expect(files.length).toBeGreaterThan(500);
  const found: string[] = [];
  for (const file of files) {
    for (const [index, line] of readFileSync(join(root, file), 'utf8').split('\n').entries()) {
      for (const [instead, word] of Object.entries(rejected)) {
        const match = line.replace(stableNames, '').match(word);
        if (match) found.push(`${file}:${index + 1}: "${match[0]}": say ${instead}`);
      }
    }
  }
  expect(found).toEqual([]);
});
