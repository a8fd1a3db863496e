import type { Context } from '../command/context.ts';
import type { Result } from '../command/result.ts';
import { chooseServer, openClient, signInRequired } from '../connection/connection.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, toFailure } from '../failure/failure.ts';
import { makeOutput, type Output } from '../output/output.ts';
import { render } from '../output/render.ts';

/**
 * Runs a command: creates its context, turns Ctrl-C into an aborted signal, and prints errors. Resolves to the exit
 * code.
 */
export async function run(
  options: { json: boolean; server?: string },
  work: (context: Context) => Promise<Result | number | undefined>,
): Promise<number> {
  const { env } = process;
  const out = makeOutput(env, options.json);
  const controller = new AbortController();
  const interrupt = () => {
    // A second Ctrl-C does not wait for the command to handle the first.
    if (controller.signal.aborted) process.exit(exitCodes.interrupted);
    controller.abort(new Failure('interrupted', 'Interrupted.', { exitCode: exitCodes.interrupted }));
  };
  process.on('SIGINT', interrupt);
  const leaveInterrupts = () => {
    process.on('SIGINT', () => {});
    process.off('SIGINT', interrupt);
  };
  try {
    const ended = await work(makeContext(env, out, controller.signal, options.server, leaveInterrupts));
    if (typeof ended !== 'object') return ended ?? exitCodes.success;
    await render(out, ended);
    return ended.exitCode ?? exitCodes.success;
  } catch (error) {
    const failure = toFailure(
      controller.signal.aborted && !(error instanceof Failure) ? controller.signal.reason : error,
    );
    out.fail(failure);
    return failure.exitCode;
  } finally {
    process.off('SIGINT', interrupt);
  }
}

function makeContext(
  env: NodeJS.ProcessEnv,
  out: Output,
  signal: AbortSignal,
  named: string | undefined,
  leaveInterrupts: () => void,
): Context {
  let chosen: ReturnType<typeof chooseServer> | undefined;
  const server = () => {
    chosen ??= chooseServer(env, named);
    return chosen;
  };
  return {
    env,
    out,
    signal,
    leaveInterrupts,
    server,
    forServer: (other) => makeContext(env, out, signal, other, leaveInterrupts),
    async client({ patienceMs } = {}) {
      const { url, token } = server();
      if (!token) throw signInRequired(url);
      return openClient({ url, token, signal, patienceMs, note: out.note });
    },
  };
}
