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

let isReleased = false;

/**
 * For programs that end by themselves, once nothing keeps them alive: from now on the module is cleaned up when nothing of it
 * is open. Otherwise closed objects keep the process alive until they are garbage-collected, which may never happen in a
 * command that is done. The module can be used again afterwards. Servers do without: native code that runs for each client
 * that leaves can only do harm there.
 */
export function releaseNativeWhenUnused(): void {
  isReleased = true;
}

/** Call when nothing of the module is open. */
export function nativeUnused(): void {
  if (!isReleased) return;
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
