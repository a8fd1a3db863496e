import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { posix } from 'node:path';
import type { Context } from '../command/context.ts';
import { Failure, usage } from '../failure/failure.ts';
import { type FileLocation, maxPendingPieces, pump } from './copy-file.ts';
import { formatOperand, type Operand } from './operands.ts';
import type { OpenFile } from './side.ts';

/** `-` is standard input or output; a file of that name is written `./-`. */
export const isStream = ({ workspace, path }: Operand): boolean => workspace === null && path === '-';

/** Throws a usage error for copies that are impossible with a stream. */
export function checkStreams(operands: Operand[], target: Operand, json: boolean): void {
  if (operands.some(isStream) && operands.length > 1)
    throw usage(
      'Standard input is one file: - stands alone as the source.',
      'Write cde cp - WORKSPACE:FILE.',
    );
  if (isStream(target) && operands.length > 1)
    throw usage('Only one file goes to standard output.', 'Write cde cp WORKSPACE:FILE -.');
  if (isStream(target) && json)
    throw usage('With --json, standard output holds the result, so no file can go there.');
}

/** Writes a file of a workspace to standard output. Resolves to its size. */
export async function copyToStdout({ signal }: Context, from: FileLocation): Promise<number> {
  const source = await from.side.status(from.path || '.');
  const label = from.side.label(from.path);
  if (!source)
    throw new Failure('file-not-found', `${label} does not exist.`, { exitCode: 3, hint: 'Check the path.' });
  if (source.kind !== 'file')
    throw new Failure(
      source.kind === 'folder' ? 'file-is-folder' : 'file-not-regular',
      `${label} is ${source.kind === 'folder' ? 'a folder' : 'not a file'}.`,
      { hint: 'Only a file goes to standard output.' },
    );
  const input = await from.side.open(from.path, 'read');
  let count = 0;
  try {
    await pump(from, source, input, stdout, 0, { signal, preserve: false, onBytes() {} }, (more) => {
      count += more;
    });
  } finally {
    await input.close().catch(() => {});
  }
  return count;
}

/** Written in order only. */
const stdout: Pick<OpenFile, 'write'> = {
  async write(data: Buffer) {
    if (!process.stdout.write(data)) await once(process.stdout, 'drain');
  },
};

/** Writes standard input to a file of a workspace, which gets its name once it is complete. Resolves to its size. */
export async function copyFromStdin(
  { signal }: Context,
  to: FileLocation,
  operand: Operand,
): Promise<number> {
  const { side } = to;
  const there = to.path === '' ? { kind: 'folder', mode: 0 } : await side.status(to.path);
  if (there?.kind === 'folder')
    throw new Failure('file-is-folder', `${formatOperand(operand)} is a folder.`, {
      hint: 'Standard input has no name: name the file that it becomes.',
    });
  const target = there ? await side.real(to.path) : to.path;
  const part = posix.join(posix.dirname(target), `.stdin.${randomBytes(6).toString('hex')}.cde-part`);
  const file = await side.open(part, 'create', 0o666);
  let position = 0;
  try {
    const writes: Promise<void>[] = [];
    for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
      signal.throwIfAborted();
      const write = file.write(chunk, position);
      write.catch(() => {});
      writes.push(write);
      position += chunk.length;
      if (writes.length >= maxPendingPieces) await writes.shift();
    }
    for (const write of writes) await write;
    if (there) await file.setMode(there.mode & 0o777);
    await file.sync();
    await file.close();
    await side.rename(part, target);
  } catch (error) {
    await file.close().catch(() => {});
    await side.remove(part).catch(() => {});
    throw error;
  }
  return position;
}
