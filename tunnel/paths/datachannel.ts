import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { DataChannel, PeerConnection, RtcConfig } from 'node-datachannel';
import { TunnelError } from '../errors.ts';

/** What we use of node-datachannel: ICE, DTLS and SCTP in a native module. */
export interface NativeIce {
  PeerConnection: new (name: string, config: RtcConfig) => PeerConnection;
  cleanup(): void;
}
export type { DataChannel, PeerConnection };

let loaded: NativeIce | TunnelError | undefined;
let ending: NodeJS.Timeout | undefined;
/** A path that is lost is looked for anew at once: only after that has nobody a use for it. */
const unusedMs = 100;

/**
 * Loads the native module, once: beside the agent's bundle, or from its package. Throws `path-unsupported` where it
 * does not run on this machine.
 */
export function loadNative(): NativeIce {
  clearTimeout(ending);
  loaded ??= load();
  if (loaded instanceof TunnelError) throw loaded;
  return loaded;
}

/**
 * To be called when nothing of the module is open any more, in a process that may want to end: what has been closed
 * keeps it alive until it is collected as garbage, which in a command that is done may be never. It can be used
 * again afterwards.
 */
export function releaseNative(): void {
  clearTimeout(ending);
  ending = setTimeout(() => {
    if (loaded && !(loaded instanceof TunnelError)) loaded.cleanup();
  }, unusedMs);
  ending.unref();
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
