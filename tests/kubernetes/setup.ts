// Brings the test cluster up, unless CDE_TEST_KUBECONFIG names another, and tells the tests its kubeconfig by
// that same variable. The cluster stays up afterwards: `npm run kube:down` ends it.
import { existsSync } from 'node:fs';
import { withClusterLock } from '../cluster/lock.ts';
import { SetupError } from '../cluster/machine.ts';
import { up } from '../cluster/up.ts';

/** Vitest runs it once, before all files. */
export default async function setup(): Promise<void> {
  // Before anything is started: an older one would leave the cluster with processes that cannot run on it.
  if (Number.parseInt(process.versions.node, 10) < 24)
    throw new Error(`Node ${process.versions.node} is too old: npm run test:kubernetes brings Node 24`);
  const given = process.env.CDE_TEST_KUBECONFIG;
  if (given) {
    if (!existsSync(given)) throw new Error(`CDE_TEST_KUBECONFIG names ${given}, which is not there`);
    return;
  }
  try {
    process.env.CDE_TEST_KUBECONFIG = await withClusterLock(up);
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(`${error.message}; set CDE_TEST_KUBECONFIG to use a cluster that you have.`);
    process.exit(1);
  }
}
