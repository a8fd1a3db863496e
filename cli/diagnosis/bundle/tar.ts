import { gzipSync } from 'node:zlib';

export interface ArchivedFile {
  /** Relative, at most 100 bytes. */
  path: string;
  text: string;
}

const block = 512;

/** A tar.gz of small text files, in the format ustar, which every tar reads. */
export function makeArchive(files: readonly ArchivedFile[], now: Date): Buffer {
  const parts = files.flatMap(({ path, text }) => {
    const content = Buffer.from(text);
    const padding = Buffer.alloc((block - (content.length % block)) % block);
    return [header(path, content.length, now), content, padding];
  });
  return gzipSync(Buffer.concat([...parts, Buffer.alloc(2 * block)]));
}

function header(path: string, size: number, now: Date): Buffer {
  if (Buffer.byteLength(path) > 100) throw new Error(`${path} is too long a name for an archive`);
  const head = Buffer.alloc(block);
  const octal = (value: number, at: number, length: number) =>
    head.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at);
  head.write(path, 0);
  octal(0o600, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(size, 124, 12);
  octal(Math.floor(now.getTime() / 1000), 136, 12);
  head.write('        ', 148);
  head.write('0', 156);
  head.write('ustar\x0000', 257);
  const sum = head.reduce((total, byte) => total + byte, 0);
  head.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return head;
}
