import type { FileHandle } from 'node:fs/promises';

/** A file or folder that a client has open. */
export type OpenEntry =
  | { kind: 'file'; file: FileHandle; append: boolean }
  | { kind: 'folder'; path: Buffer; names: Buffer[] };

/** Like OpenSSH. A client that forgets to close files must not use up the agent's descriptors. */
export const maxHandles = 1000;

/** The handles of an SFTP session, each of four bytes. */
export function makeHandles() {
  const open = new Map<number, OpenEntry>();
  let next = 0;
  return {
    full: () => open.size >= maxHandles,
    add(entry: OpenEntry): Buffer {
      while (open.has(next)) next = (next + 1) >>> 0;
      const handle = Buffer.allocUnsafe(4);
      handle.writeUInt32BE(next);
      open.set(next, entry);
      next = (next + 1) >>> 0;
      return handle;
    },
    get(handle: Buffer): OpenEntry | undefined {
      return handle.length === 4 ? open.get(handle.readUInt32BE()) : undefined;
    },
    async close(handle: Buffer): Promise<boolean> {
      const entry = this.get(handle);
      if (!entry) return false;
      open.delete(handle.readUInt32BE());
      if (entry.kind === 'file') await entry.file.close();
      return true;
    },
    async closeAll(): Promise<void> {
      for (const entry of open.values()) {
        if (entry.kind === 'file') await entry.file.close().catch(() => {});
      }
      open.clear();
    },
  };
}
export type Handles = ReturnType<typeof makeHandles>;
