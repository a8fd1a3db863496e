import type { Accounts } from './attributes.ts';
import type { Handles, OpenEntry } from './handles.ts';
import { type Reader, statusCodes } from './packets.ts';
import { resolvePath } from './paths.ts';
import { SftpError } from './replies.ts';

/** State shared by the requests of an SFTP session. */
export interface SftpContext {
  home: string;
  /** Called when file contents are read or written. */
  onTransfer: () => void;
  handles: Handles;
  /** Read on first use. */
  accounts(): Promise<Accounts>;
}

/** The open file that a request names by its handle. */
export function takeFile(reader: Reader, context: SftpContext): OpenEntry & { kind: 'file' } {
  const entry = context.handles.get(reader.bytes());
  if (entry?.kind !== 'file') throw new SftpError(statusCodes.noSuchFile, 'No such file');
  return entry;
}

export function takePath(reader: Reader, context: SftpContext): Buffer {
  return resolvePath(context.home, reader.bytes());
}
