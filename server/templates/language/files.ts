import type { Fault } from '@cde/api/templates.ts';
import { isUnstorable } from './storable.ts';

export const templateFileName = 'template.yaml';
const fileLimits = { files: 64, bytes: 512 * 1024 } as const;

/** The faults of a template's folder as such: names that would leave it, too many, too large. */
export function checkFiles(files: Record<string, string>): Fault[] {
  const faults: Fault[] = [];
  const fault = (file: string, message: string, hint?: string) =>
    faults.push({ file, line: 1, column: 1, path: '', message, hint });
  const names = Object.keys(files);
  if (!Object.hasOwn(files, templateFileName)) {
    const other = names.find((name) => /^(.*\/)?template\.ya?ml$/i.test(name));
    fault(
      templateFileName,
      'the folder has no template.yaml',
      other === undefined
        ? 'a template is a folder with a file template.yaml; docs/templates.md has an example'
        : `rename "${other}" to "template.yaml"`,
    );
  }
  if (names.length > fileLimits.files) {
    fault(
      templateFileName,
      `the folder has ${names.length} files; at most ${fileLimits.files} are allowed`,
      'keep what the template needs, and leave the rest out',
    );
  }
  let bytes = 0;
  for (const name of names) {
    bytes += Buffer.byteLength(files[name]!);
    const parts = name.split('/');
    if (
      !/^[\w.@+ -]+(\/[\w.@+ -]+)*$/.test(name) ||
      parts.some((part) => part === '.' || part === '..' || part === '__proto__')
    ) {
      fault(
        name,
        'the file name is not a plain relative path',
        'use letters, digits, ".", "_", "-" and "/", without ".."',
      );
    }
    if (isUnstorable(files[name]!)) {
      fault(name, 'the file is not text', 'a template carries UTF-8 text only');
    }
  }
  if (bytes > fileLimits.bytes) {
    fault(
      templateFileName,
      `the folder has ${Math.ceil(bytes / 1024)} KiB; at most ${fileLimits.bytes / 1024} KiB are allowed`,
      'keep large files in an image or a repository, and fetch them in the startup script',
    );
  }
  return faults;
}
