import { posix } from 'node:path';

/** What a tree holds at a path. A file is its content, by SHA-256 (base64url), and whether its owner may run it. */
export type Entry =
  /** `mode`: its permissions, for the folder that is made on the other side; older agents leave it out. */
  | { kind: 'folder'; mode?: number }
  | { kind: 'file'; hash: string; size: number; executable: boolean }
  | { kind: 'link'; target: string };
export type FileEntry = Extract<Entry, { kind: 'file' }>;
export type LinkEntry = Extract<Entry, { kind: 'link' }>;

/** Entries by their path, relative to the root, with `/`; a folder's own path is there as well, the root's is not. */
export type Entries = Map<string, Entry>;

/** True when both sides have the same, or both have nothing. */
export function sameEntry(one: Entry | undefined | null, other: Entry | undefined | null): boolean {
  if (!one || !other) return !one && !other;
  if (one.kind === 'file')
    return other.kind === 'file' && one.hash === other.hash && one.executable === other.executable;
  if (one.kind === 'link') return other.kind === 'link' && one.target === other.target;
  return other.kind === 'folder';
}

/** Files of ours that are not whole yet. No tree shows them, none takes them. */
const temporaryName = /^\.cde-sync-[0-9a-f]{16}\.tmp$/;
export const isTemporaryName = (name: string): boolean => temporaryName.test(name);

const maxPathBytes = 4096;
const maxNameBytes = 255;
/** Folders in one another; far beyond what people make, far below what a stack takes. */
const maxDepth = 256;

/** A name that is one name, on this system as well: no path, nothing that leads upwards. */
function isName(name: string): boolean {
  if (name === '' || name === '.' || name === '..' || name.includes('\0')) return false;
  if (process.platform === 'win32' && /[\\:*?"<>|]|[. ]$/.test(name)) return false;
  return Buffer.byteLength(name) <= maxNameBytes && !isTemporaryName(name);
}

/** True for a path that stays below its root, whoever made it up. Links on its way are another matter. */
export function isSafePath(path: unknown): path is string {
  if (typeof path !== 'string' || path.length > maxPathBytes) return false;
  const names = path.split('/');
  return names.length <= maxDepth && names.every(isName);
}

/**
 * True for a link that leads to something below the root: relative, and upwards only at its beginning, where the
 * folders are known to be folders. Behind another link `..` would start from wherever that leads.
 */
export function isSafeLink(path: string, target: unknown): target is string {
  if (typeof target !== 'string' || target === '' || target.includes('\0')) return false;
  if (target.startsWith('/') || Buffer.byteLength(target) > maxPathBytes) return false;
  if (process.platform === 'win32' && /[\\:]/.test(target)) return false;
  const names = target.split('/').filter((name) => name !== '' && name !== '.');
  const up = names.findIndex((name) => name !== '..');
  const ups = up < 0 ? names.length : up;
  if (names.slice(ups).includes('..')) return false;
  return ups <= path.split('/').length - 1;
}

/** True for an entry in its proper form: it may come from a hostile machine. */
export function isEntry(path: string, entry: unknown): entry is Entry {
  if (typeof entry !== 'object' || entry === null) return false;
  const { kind, hash, size, executable, target, mode } = entry as Record<string, unknown>;
  if (kind === 'folder') return mode === undefined || isMode(mode);
  if (kind === 'link') return isSafeLink(path, target);
  return (
    kind === 'file' &&
    typeof hash === 'string' &&
    /^[\w-]{43}$/.test(hash) &&
    Number.isSafeInteger(size) &&
    (size as number) >= 0 &&
    typeof executable === 'boolean'
  );
}

/** Permission bits alone: no setuid, setgid or sticky bit crosses from one machine to another. */
export const isMode = (mode: unknown): mode is number =>
  Number.isInteger(mode) && (mode as number) >= 0 && (mode as number) <= 0o777;

/** `a/b` of `a/b/c`, and the empty path of `a`. */
export function parentOf(path: string): string {
  const parent = posix.dirname(path);
  return parent === '.' ? '' : parent;
}
