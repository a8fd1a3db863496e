import type { Client } from '@cde/api/client.ts';
import type { ChosenServer } from '../connection/connection.ts';
import type { Output } from '../output/output.ts';

/** The context of a command. */
export interface Context {
  env: NodeJS.ProcessEnv;
  out: Output;
  /** Aborted by Ctrl-C. */
  signal: AbortSignal;
  /** From now on Ctrl-C is left to a child on the same terminal. */
  leaveInterrupts(): void;
  /** The server that this command uses. Throws if there is none. */
  server(): ChosenServer;
  /** The same, for the server with this alias or URL. */
  forServer(named: string): Context;
  /** The typed client. Throws `sign-in-required` without a login. */
  client(options?: { patienceMs?: number }): Promise<Client>;
}
