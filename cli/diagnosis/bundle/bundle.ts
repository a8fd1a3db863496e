import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Context } from '../../command/context.ts';
import { line, note, type Result, result } from '../../command/result.ts';
import { readConfig } from '../../config/config.ts';
import { writeAtomically } from '../../config/files.ts';
import { exitCodes } from '../../failure/exit-codes.ts';
import { Failure, toFailure } from '../../failure/failure.ts';
import { listSources, type Source } from './collect.ts';
import { makeRedactor, secretName } from './redact.ts';
import { type ArchivedFile, makeArchive } from './tar.ts';

/** A server or program that hangs leaves a note in place of its file. */
const sourceTimeoutMs = 30_000;
const maxFileBytes = 2 * 1024 * 1024;

/** Writes an archive for support. What cannot be collected is noted in its place. */
export async function supportBundle(
  context: Context,
  input: { workspace: string | undefined; output: string | undefined },
): Promise<Result> {
  const now = new Date();
  const name = `cde-support-${now.toISOString().slice(0, 19).replaceAll(':', '-')}`;
  const path = resolve(input.output ?? `${name}.tar.gz`);
  if (existsSync(path))
    throw new Failure('file-exists', `${path} exists already.`, {
      exitCode: exitCodes.conflict,
      hint: 'Choose another file: --output FILE',
    });
  context.out.note('Collecting. This takes a few seconds.');
  const redact = makeRedactor(knownSecrets(context.env));
  const sources = listSources(context, input.workspace);
  const files = await Promise.all(sources.map((source) => collect(source, context, redact)));
  context.signal.throwIfAborted();
  const readme = { path: 'README.txt', text: readmeText(sources, now) };
  const all = [readme, ...files];
  writeAtomically(
    path,
    makeArchive(
      all.map((file) => ({ ...file, path: `${name}/${file.path}` })),
      now,
    ),
    0o600,
  );
  return result({ path, files: all.map((file) => file.path) }, () => [
    ...sources.map((source) => line(`${source.path.padEnd(26)}${source.about}`)),
    line(''),
    line(`Written to ${path}`),
    note(
      'Tokens, passwords, keys and cookies were removed. Read it before you send it: it is plain text in a tar.gz.',
    ),
  ]);
}

/** Tokens of this machine's logins, and whatever its environment calls a secret. */
function knownSecrets(env: NodeJS.ProcessEnv): string[] {
  const values = Object.entries(env).flatMap(([name, value]) =>
    secretName.test(name) && value ? [value] : [],
  );
  const inUrls = Object.values(env).flatMap((value) => {
    const url = value && URL.canParse(value) ? new URL(value) : null;
    return url?.password ? [url.password, decodeURIComponent(url.password)] : [];
  });
  try {
    return [...values, ...inUrls, ...Object.values(readConfig(env).servers).map(({ token }) => token)];
  } catch {
    // An unreadable configuration is no part of the bundle.
    return [...values, ...inUrls];
  }
}

async function collect(
  { path, read }: Source,
  { signal }: Context,
  redact: (text: string) => string,
): Promise<ArchivedFile> {
  let text: string;
  let timer: NodeJS.Timeout | undefined;
  try {
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error('it took too long')), sourceTimeoutMs);
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
    const value = await Promise.race([Promise.resolve().then(read), timeout]);
    text = typeof value === 'string' ? value : JSON.stringify(value, null, 2);
  } catch (error) {
    const { code, message, detail } = toFailure(error);
    text = `This could not be collected: ${message} [${code}]${code === 'internal' ? '' : `\n${detail ?? ''}`}`;
    if (code === 'internal') text += `\n${(error as Error).message}`;
  } finally {
    clearTimeout(timer);
  }
  return { path, text: `${redact(text).slice(0, maxFileBytes)}\n` };
}

const readmeText = (sources: readonly Source[], now: Date) =>
  [
    `A support bundle of cde, made by "cde support-bundle" at ${now.toISOString()}.`,
    '',
    ...sources.map(({ path, about }) => `${path.padEnd(26)}${about}`),
    '',
    'Secrets were replaced by [removed]: tokens, passwords, keys, cookies, credentials in URLs, values of parameters,',
    'and whatever looked like one of them. It contains no files and no traffic of any workspace. It does contain names of',
    'users, workspaces and hosts, addresses, and the log of a build if a workspace was named.',
    '',
  ].join('\n');
