import { posix } from 'node:path';

/** An entry of a tree. Files are identified by content (SHA-256, base64url) and by whether the owner may execute them. */
export type Entry =
  /** `mode`: permissions for creating the folder on the other side; earlier agents omit it. */
  | { kind: 'folder'; mode?: number }
  | { kind: 'file'; hash: string; size: number; executable: boolean }
  | { kind: 'link'; target: string };
export type FileEntry = Extract<Entry, { kind: 'file' }>;
export type LinkEntry = Extract<Entry, { kind: 'link' }>;

/** Entries by path, relative to the root and separated by `/`. Includes folders, but not the root. */
export type Entries = Map<string, Entry>;

/** True if both entries are equal, or both are absent. */
export function sameEntry(one: Entry | undefined | null, other: Entry | undefined | null): boolean {
  if (!one || !other) return !one && !other;
  if (one.kind === 'file')
    return other.kind === 'file' && one.hash === other.hash && one.executable === other.executable;
  if (one.kind === 'link') return other.kind === 'link' && one.target === other.target;
  return other.kind === 'folder';
}

/** Our temporary files of incomplete writes, which are never synchronized. */
const temporaryName = /^\.cde-sync-[0-9a-f]{16}\.tmp$/;
export const isTemporaryName = (name: string): boolean => temporaryName.test(name);

const maxPathBytes = 4096;
const maxNameBytes = 255;
/** Maximum nesting: far more than people use, far less than a stack can take. */
const maxDepth = 256;

/** True for a valid file name on this system: a single path segment, not `.` or `..`. */
function isName(name: string): boolean {
  if (name === '' || name === '.' || name === '..' || name.includes('\0')) return false;
  if (process.platform === 'win32' && /[\\:*?"<>|]|[. ]$/.test(name)) return false;
  return Buffer.byteLength(name) <= maxNameBytes && !isTemporaryName(name);
}

/** True for a path that stays below its root, even from a malicious peer. Does not consider links along the path. */
export function isSafePath(path: unknown): path is string {
  if (typeof path !== 'string' || path.length > maxPathBytes) return false;
  const names = path.split('/');
  return names.length <= maxDepth && names.every(isName);
}

/**
 * True for a link to something below the root: relative, with `..` only at the beginning, where the parents are known to
 * be folders. After another link `..` would start from wherever that one leads.
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

/** Validates an entry from an untrusted machine. */
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

/** Permission bits only: setuid, setgid and sticky bits must not cross machines. */
export const isMode = (mode: unknown): mode is number =>
  Number.isInteger(mode) && (mode as number) >= 0 && (mode as number) <= 0o777;

/** The parent of `a/b/c` is `a/b`, that of `a` is the empty path. */
export function parentOf(path: string): string {
  const parent = posix.dirname(path);
  return parent === '.' ? '' : parent;
}
