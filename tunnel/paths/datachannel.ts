import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { DataChannel, PeerConnection, RtcConfig } from 'node-datachannel';
import { TunnelError } from '../errors.ts';

/** What we use of node-datachannel: ICE, DTLS and SCTP in a native module. */
export interface NativeIce {
  PeerConnection: new (name: string, config: RtcConfig) => PeerConnection;
}
export type { DataChannel, PeerConnection };

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
    return (beside ? require('./datachannel.node') : require('node-datachannel').default) as NativeIce;
  } catch (error) {
    const [why] = (error as Error).message.split('\n');
    return new TunnelError('path-unsupported', why);
  }
}
