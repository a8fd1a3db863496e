import fc from 'fast-check';
import { expect, test } from 'vitest';
import { addInclude, removeInclude } from './config-file.ts';

const path = '~/.ssh/cde/config';
const added = addInclude('', path);
const [mark, include] = added.trimEnd().split('\n') as [string, string];

/** Files of all sorts: any bytes, line ends of both kinds or mixed, a last line without one, pieces of ours. */
const piece = fc.oneof(
  fc.constantFrom('Host *', '  User ada', '# comment', '', 'Include other', include, 'Include', '\tPort 22 '),
  fc.uint8Array({ maxLength: 12 }).map((bytes) => Buffer.from(bytes).toString('latin1').replaceAll(mark, '')),
);
const content = fc
  .array(fc.tuple(piece, fc.constantFrom('\n', '\r\n', '\n\n', '')))
  .map((lines) => lines.map((line) => line.join('')).join(''));

test('what is added can be taken out again, byte for byte', () => {
  fc.assert(
    fc.property(content, (before) => {
      const after = addInclude(before, path);
      expect(after.endsWith(before)).toBe(true);
      expect(removeInclude(after)).toBe(before);
    }),
    { numRuns: 2_000 },
  );
});

test('adding again changes nothing, and another path takes the place of the first', () => {
  fc.assert(
    fc.property(content, (before) => {
      const once = addInclude(before, path);
      expect(addInclude(once, path)).toBe(once);
      expect(addInclude(addInclude(before, '/elsewhere'), path)).toBe(once);
    }),
    { numRuns: 2_000 },
  );
});

test('wherever a person has moved the lines, they are found', () => {
  fc.assert(
    fc.property(content, content, (first, second) => {
      // Ours begin at the start of a line; text of their own stays on each side.
      const head = first === '' || first.endsWith('\n') ? first : `${first}\n`;
      // An Include that follows ours by chance is the person's own.
      fc.pre(!second.startsWith('Include '));
      expect(removeInclude(`${head}${added}${second}`)).toBe(`${head}${second}`);
    }),
  );
});

test('an Include that a person wrote stays, and lines end as the file’s do', () => {
  expect(removeInclude(`${include}\nHost *\n`)).toBe(`${include}\nHost *\n`);
  expect(addInclude('Host *\r\n', path)).toBe(`${mark}\r\n${include}\r\nHost *\r\n`);
  expect(addInclude('Host *', path)).toBe(`${mark}\n${include}\nHost *`);
  expect(removeInclude(`${mark}\nHost *\n`)).toBe('Host *\n');
});
