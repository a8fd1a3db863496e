import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** The machine's name for its next start; from now on it finds itself by that name, which sudo asks for. */
export async function setHostname(root: string, name: string): Promise<void> {
  const at = (path: string) => join(root, path);
  const hosts = await readFile(at('etc/hosts'), 'utf8').catch(() => '');
  const knows = hosts
    .split('\n')
    .some((line) => line.replace(/#.*/, '').split(/\s+/).slice(1).includes(name));
  if (!knows)
    await writeFile(
      at('etc/hosts'),
      `${hosts}${hosts && !hosts.endsWith('\n') ? '\n' : ''}127.0.1.1 ${name}\n`,
    );
  await writeFile(at('etc/hostname'), `${name}\n`);
}
