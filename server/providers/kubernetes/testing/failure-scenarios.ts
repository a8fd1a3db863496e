import { containerScenarios } from './failure-scenarios/containers.ts';
import { imageScenarios } from './failure-scenarios/images.ts';
import { nodeScenarios } from './failure-scenarios/nodes.ts';
import { policyScenarios } from './failure-scenarios/policies.ts';
import type { FailureScenario } from './failure-scenarios/scenario.ts';
import { volumeScenarios } from './failure-scenarios/volumes.ts';

/** `unique` is part of the names of what is not in a namespace; `registry` HOST:PORT of the test's own registry. */
export function failureScenarios(unique: string, registry: string): FailureScenario[] {
  return [
    ...imageScenarios(registry),
    ...volumeScenarios(unique),
    ...nodeScenarios,
    ...policyScenarios(unique),
    ...containerScenarios(unique),
  ];
}
