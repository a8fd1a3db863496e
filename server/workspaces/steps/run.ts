import type { Provider } from '../../providers/provider.ts';
import type { Step } from '../statuses.ts';
import { awaitAgent } from './await-agent.ts';
import { awaitStartup } from './await-startup.ts';
import { begin } from './begin.ts';
import type { StepDeps } from './deps.ts';
import { fail } from './fail.ts';
import { finish } from './finish.ts';
import { observe } from './observe.ts';
import type { BuildSnapshot, Outcome, Snapshot } from './outcome.ts';
import { prepareStop } from './prepare-stop.ts';
import { provision } from './provision.ts';
import { remove } from './remove.ts';
import { render } from './render.ts';
import { stop } from './stop.ts';

/** Runs one step and returns what it changes. Steps write nothing themselves, so each may run twice. */
export async function runStep(
  deps: StepDeps,
  step: Step,
  snapshot: Snapshot,
  provider: Provider | undefined,
): Promise<Outcome | null> {
  if (step === 'nothing') return null;
  if (step === 'observe') return provider ? observe(deps, snapshot, provider) : null;
  // Only these two steps are taken without an unfinished build.
  const building = snapshot as BuildSnapshot;
  if (!provider) return failWithoutProvider(deps, building);
  switch (step) {
    case 'begin':
      return begin(deps.now(), building);
    case 'render':
      return (await prepareStop(deps, building)) ?? render(deps, building);
    case 'provision':
      return provision(deps, building, provider);
    case 'await-agent':
      return awaitAgent(deps, building, provider);
    case 'await-startup':
      return awaitStartup(deps, building, provider);
    case 'finish':
      return finish(deps.now(), building);
    case 'stop':
      return stop(deps, building, provider, { isCancel: false });
    case 'unwind':
      return stop(deps, building, provider, { isCancel: true });
    case 'remove':
      return remove(deps, building, provider);
  }
}

/** The provider was turned off, so what it made cannot be reached. */
function failWithoutProvider({ now }: StepDeps, snapshot: BuildSnapshot): Outcome {
  return fail(now(), snapshot, {
    code: 'provider-not-available',
    message: `The provider ${snapshot.workspace.provider} is no longer available on this server.`,
    hint: 'Ask an administrator to turn it on again. The home is untouched.',
    fault: 'system',
  });
}
