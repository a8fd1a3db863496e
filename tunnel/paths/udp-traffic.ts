let bytes = 0;

/** Counts what UDP paths of this process carry; unlike sockets, they are not visible to Node. */
export const countUdpBytes = (count: number): void => {
  bytes += count;
};
export const udpBytes = (): number => bytes;
