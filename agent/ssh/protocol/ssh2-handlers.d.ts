/** What @types/ssh2 leaves out: ssh2's table of handlers by message number. */
declare module 'ssh2/lib/protocol/handlers.js' {
  const handlers: ((protocol: unknown, payload: Buffer) => unknown)[];
  export default handlers;
}
