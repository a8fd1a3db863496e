import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { DataChannel, PeerConnection, RtcConfig } from 'node-datachannel';
import { TunnelError } from '../errors.ts';

/** The part of node-datachannel that we use: ICE, DTLS and SCTP in a native module. */
export interface NativeIce {
  PeerConnection: new (name: string, config: RtcConfig) => PeerConnection;
  cleanup(): void;
}
export type { DataChannel, PeerConnection };

let loaded: NativeIce | TunnelError | undefined;
let cleanupTimer: NodeJS.Timeout | undefined;
/** A lost path is searched for again immediately, so wait for that before cleaning up. */
const cleanupDelayMs = 100;

/**
 * Loads the native module once, from beside the agent's bundle or from its package. Throws `path-unsupported` if it does
 * not run on this machine.
 */
export function loadNative(): NativeIce {
  clearTimeout(cleanupTimer);
  loaded ??= load();
  if (loaded instanceof TunnelError) throw loaded;
  return loaded;
}

/**
 * Call when nothing of the module is open, in processes that need to exit: closed objects keep the process alive until
 * they are garbage-collected, which may never happen in a command that is done. The module can be used again afterwards.
 */
export function releaseNative(): void {
  clearTimeout(cleanupTimer);
  cleanupTimer = setTimeout(() => {
    if (loaded && !(loaded instanceof TunnelError)) loaded.cleanup();
  }, cleanupDelayMs);
  cleanupTimer.unref();
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
