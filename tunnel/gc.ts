import v8 from 'node:v8';

/**
 * Sets V8's garbage collector up for a process through which much data flows. Each block of it is a Buffer, memory
 * outside V8's heap of which the heap holds a small object only. As V8 stands it lets these small objects gather to
 * 16 MB, with a gigabyte behind them, and, since that counts, marks the whole heap every few MB of data: a third of
 * the CPU of a session in bulk. So what is outside counts as the heap itself does, and (`smallNewSpace`, for
 * processes that do little else) new objects are looked through at each MB of theirs, which frees the Buffers.
 * Measured by bench/tunnel.ts in one minute: 133 markings and 9.7 s of CPU for 512 MB through client, satellite
 * and agent; 10 to 66, and 5.7 to 7.3 s, with it.
 *
 * Where little lives on the heap (`smallHeap`: 15 MB of a client or an agent), V8 still marks it all whenever as much
 * again has come by, 12 times a second in bulk, a third of the agent's CPU. There it may come to five times as much
 * first: once a second.
 *
 * To be called first of all. V8 reads these flags whenever it decides, so they need not be on the command line.
 */
export function collectBuffersEarly({
  smallNewSpace,
  smallHeap = false,
}: {
  smallNewSpace: boolean;
  smallHeap?: boolean;
}): void {
  // Flags of V8 itself, not of Node: known to be right for the version that we run on, and for no other.
  if (!process.versions.v8.startsWith('13.6.')) return;
  v8.setFlagsFromString('--external-memory-accounted-in-global-limit');
  if (smallHeap) v8.setFlagsFromString('--heap-growing-percent=400');
  if (smallNewSpace) v8.setFlagsFromString('--semi-space-growth-factor=1');
}
