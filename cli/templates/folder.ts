import { type Dirent, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Failure, usage } from '../failure/failure.ts';

/** The server's limits, checked here so that the message names the file. */
const maxFiles = 64;
const maxBytes = 512 * 1024;
const skipped = new Set(['node_modules']);

/**
 * Reads a template's folder: relative path (with `/`) to text. Hidden files, `node_modules` and what is
 * neither file nor folder are left out. Throws when it is no template's folder, or too much of one.
 */
export function readTemplateFolder(folder: string): Record<string, string> {
  const at = statSync(folder, { throwIfNoEntry: false });
  if (!at) throw usage(`There is no folder ${folder}.`);
  if (!at.isDirectory())
    throw usage(`${folder} is a file; a template is a folder.`, 'Give the folder that holds template.yaml.');
  const files: Record<string, string> = {};
  let bytes = 0;
  const walk = (inside: string) => {
    const entries: Dirent[] = readdirSync(join(folder, inside), { withFileTypes: true });
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (entry.name.startsWith('.') || skipped.has(entry.name)) continue;
      const path = inside === '' ? entry.name : `${inside}/${entry.name}`;
      if (entry.isDirectory()) walk(path);
      if (!entry.isFile()) continue;
      const content = readFileSync(join(folder, path));
      bytes += content.length;
      files[path] = textOf(path, content);
      if (Object.keys(files).length > maxFiles || bytes > maxBytes)
        throw new Failure('template-too-large', `${folder} holds too much for a template.`, {
          detail: `At most ${maxFiles} files and ${maxBytes / 1024} KiB together; ${path} goes beyond it.`,
          hint: 'Keep large files out of the folder; hidden files and node_modules are left out by themselves.',
        });
    }
  };
  walk('');
  if (!Object.hasOwn(files, 'template.yaml'))
    throw usage(
      `${folder} holds no template.yaml.`,
      'Start from a copy of templates/local or templates/kubernetes.',
    );
  return files;
}

function textOf(path: string, content: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(content);
  } catch {
    throw new Failure('template-not-text', `${path} is not text in UTF-8.`, {
      hint: 'A template holds text files only; a workspace fetches the rest in its startup script.',
    });
  }
}
