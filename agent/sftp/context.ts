import type { Accounts } from './attributes.ts';
import type { Handles, OpenEntry } from './handles.ts';
import { type Reader, statusCodes } from './packets.ts';
import { resolvePath } from './paths.ts';
import { SftpError } from './replies.ts';

/** What the requests of one SFTP session share. */
export interface SftpContext {
  home: string;
  handles: Handles;
  /** Read when first needed. */
  accounts(): Promise<Accounts>;
}

/** The open file or folder that a request names by its handle. */
export function takeFile(reader: Reader, context: SftpContext): OpenEntry & { kind: 'file' } {
  const entry = context.handles.get(reader.bytes());
  if (entry?.kind !== 'file') throw new SftpError(statusCodes.noSuchFile, 'No such file');
  return entry;
}

export function takePath(reader: Reader, context: SftpContext): Buffer {
  return resolvePath(context.home, reader.bytes());
}
