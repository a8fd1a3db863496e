import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { DataChannel, PeerConnection, RtcConfig, SctpSettings } from 'node-datachannel';
import { TunnelError } from '../errors.ts';

/** What we use of node-datachannel: ICE, DTLS and SCTP in a native module. */
export interface NativeIce {
  PeerConnection: new (name: string, config: RtcConfig) => PeerConnection;
  setSctpSettings(settings: SctpSettings): void;
}
export type { DataChannel, PeerConnection };

/** 50 MB/s at 80 ms of round trip, as a stream's window; its own 1 MiB would be a quarter of that. */
const sctpBuffer = 4 * 1024 * 1024;

let loaded: NativeIce | TunnelError | undefined;

/**
 * Loads the native module, once: beside the agent's bundle, or from its package. Throws `path-unsupported` where it
 * does not run on this machine.
 */
export function loadNative(): NativeIce {
  loaded ??= load();
  if (loaded instanceof TunnelError) throw loaded;
  return loaded;
}

function load(): NativeIce | TunnelError {
  const require = createRequire(import.meta.url);
  try {
    const beside = existsSync(fileURLToPath(new URL('datachannel.node', import.meta.url)));
    const native = (
      beside ? require('./datachannel.node') : require('node-datachannel').default
    ) as NativeIce;
    native.setSctpSettings({ sendBufferSize: sctpBuffer, recvBufferSize: sctpBuffer });
    return native;
  } catch (error) {
    const [why] = (error as Error).message.split('\n');
    return new TunnelError('path-unsupported', why);
  }
}
