import v8 from 'node:v8';

/**
 * Tunes V8's garbage collector for a process that moves a lot of data. Each chunk is a Buffer, whose memory lies
 * outside the V8 heap; the heap holds only a small wrapper. By default V8 lets 16 MB of wrappers accumulate (with a
 * gigabyte of memory behind them) and, because external memory counts, marks the whole heap every few MB of data: a
 * third of the CPU of a bulk transfer.
 *
 * We account external memory in the global limit. `smallNewSpace`, for processes that do little else, also scavenges
 * the young generation at every MB, which frees the Buffers. Measured by bench/tunnel.ts for 512 MB through client,
 * satellite and agent: 133 mark phases and 9.7 s of CPU before; 10 to 66, and 5.7 to 7.3 s, after.
 *
 * `smallHeap` is for clients and agents, whose live heap is about 15 MB. V8 marks such a heap each time it doubles,
 * 12 times a second in a bulk transfer. We let it grow fivefold first: once a second.
 *
 * Call it before anything else. V8 reads these flags at each decision, so they need not be on the command line.
 */
export function collectBuffersEarly({
  smallNewSpace,
  smallHeap = false,
}: {
  smallNewSpace: boolean;
  smallHeap?: boolean;
}): void {
  // V8 flags have no stability guarantee; these are verified for this version only.
  if (!process.versions.v8.startsWith('13.6.')) return;
  v8.setFlagsFromString('--external-memory-accounted-in-global-limit');
  if (smallHeap) v8.setFlagsFromString('--heap-growing-percent=400');
  if (smallNewSpace) v8.setFlagsFromString('--semi-space-growth-factor=1');
}
