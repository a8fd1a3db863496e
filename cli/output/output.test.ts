import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { cut } from './columns.ts';
import { clean, harmless } from './output.ts';

const attack =
  'a\u001b]0;title\u0007b\u001b[2Jc\u009b6nd\u001b[31me\rf\bg\u0000h\u202ei\u2066j\u2028k\u{e0041}';
const unshowable = /(?![\t\n])\p{Cc}|\p{Bidi_Control}|[\u2028\u2029\ufeff\u{e0000}-\u{e007f}]/u;

test('a line keeps its colours, tabs and newlines, and loses all other control sequences', () => {
  expect(harmless('\u001b[1mbold\u001b[22m\tcell\nnext')).toBe('\u001b[1mbold\u001b[22m\tcell\nnext');
  expect(harmless(attack)).toBe('a]0;titleb[2Jc6nd\u001b[31mefghijk');
});

test('no way of printing lets control sequences through, and JSON keeps its meaning', () => {
  const program = `
    import { makeOutput } from ${JSON.stringify(fileURLToPath(new URL('output.ts', import.meta.url)))};
    const attack = ${JSON.stringify(attack)};
    const out = makeOutput({}, false);
    out.print(attack);
    out.note(attack);
    out.fields([['field', attack]]);
    await out.table([{ title: 'CELL', cell: () => attack }], [1], 'none');
    out.printJsonLine({ attack });
    out.printJson({ attack });
    const failure = { code: attack, message: attack, detail: attack, hint: attack, requestId: attack };
    out.fail({ ...failure, issues: [{ path: attack, message: attack }], toJSON: () => failure });
    makeOutput({}, true).fail({ ...failure, toJSON: () => failure });`;
  const ran = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
  expect(ran.status, ran.stderr).toBe(0);
  for (const text of [ran.stdout, ran.stderr])
    expect(text.replaceAll('\u001b[31m', '')).not.toMatch(unshowable);
  const line = ran.stdout.split('\n').find((text) => text.startsWith('{"attack"'))!;
  expect(JSON.parse(line)).toEqual({ attack });
});

/** Each is followed by a mark, which has to be in the same column. */
const cells = [
  ['plain', 5],
  ['名前', 4],
  ['カﾅ', 3],
  ['한국어', 6],
  ['ｗide', 5],
  ['café', 4],
  ['cafe\u0301', 4],
  ['नमस्ते', 4],
  ['👍', 2],
  ['👩🏽‍💻', 2],
  ['👨‍👩‍👧‍👦', 2],
  ['🇩🇪', 2],
  ['❤️', 2],
  ['©', 1],
  ['1️⃣', 2],
  ['a\u200bb', 2],
] as const;

test('the columns of a table line up with wide characters, emoji, flags and combining marks', () => {
  const program = `
    import { makeOutput } from ${JSON.stringify(fileURLToPath(new URL('output.ts', import.meta.url)))};
    process.stdout.isTTY = true;
    const columns = [{ title: 'NAME', cell: ([name]) => name }, { title: 'MARK', cell: () => '|' }];
    await makeOutput({ FORCE_COLOR: '0' }, false).table(columns, ${JSON.stringify(cells)}, 'none');`;
  const ran = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
  const [head, ...lines] = ran.stdout.trimEnd().split('\n');
  expect(head, ran.stderr).toBe('NAME    MARK');
  const widest = Math.max(...cells.map(([, columns]) => columns));
  // Characters without a width are removed from what is printed.
  const expected = cells.map(([name, columns]) => `${clean(name)}${' '.repeat(widest - columns)}  |`);
  expect(lines).toEqual(expected);
});

test('text is cut to a width between whole letters', () => {
  expect(cut('plain', 5)).toBe('plain');
  expect(cut('plain text', 6)).toBe('plain…');
  expect(cut('名前です', 6)).toBe('名前…');
  expect(cut('👩🏽‍💻👩🏽‍💻👩🏽‍💻', 5)).toBe('👩🏽‍💻👩🏽‍💻…');
  expect(cut('cafe\u0301s', 4)).toBe('caf…');
  expect(cut('cafe\u0301 latte', 5)).toBe('cafe\u0301…');
  expect(cut('all', 0)).toBe('…');
});

test('characters of non-Latin scripts and emoji are preserved', () => {
  for (const text of ['👩‍💻 می‌خواهم', 'שלום', 'e\u0301']) expect(clean(text)).toBe(text);
  expect(clean('a\u202egnp.exe')).toBe('agnp.exe');
});

test('while another program controls the terminal, each line starts at the first column', () => {
  const program = `
    import { makeOutput } from ${JSON.stringify(fileURLToPath(new URL('output.ts', import.meta.url)))};
    import { Failure } from ${JSON.stringify(fileURLToPath(new URL('../failure/failure.ts', import.meta.url)))};
    const failure = new Failure('code', 'It ended.', { detail: 'one\\ntwo', hint: 'Again.' });
    makeOutput({ NO_COLOR: '1' }, false).failInSession(failure);
    process.stderr.isTTY = true;
    makeOutput({ NO_COLOR: '1' }, false).failInSession(failure);`;
  const ran = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
  const lines = ['error: It ended. [code]', '  one', '  two', '  → Again.', ''];
  expect(ran.stderr).toBe(`${lines.join('\n')}\r\n${lines.join('\r\n')}`);
});

test('a closed pipe is not an error, not even for help', () => {
  const cde = fileURLToPath(new URL('../cde.mjs', import.meta.url));
  const script = '"$0" "$1" --help | head -c 1; echo " $PIPESTATUS"';
  const ran = spawnSync('bash', ['-c', script, process.execPath, cde], { encoding: 'utf8' });
  expect(ran).toMatchObject({ stdout: 'U 0\n', stderr: '' });
});
