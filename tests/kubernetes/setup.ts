// Brings the test cluster up, unless CDE_TEST_KUBECONFIG names another, and passes its kubeconfig to the tests in
// that variable. The cluster stays up afterwards; `npm run kube:down` ends it.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { agentTestImage } from '../cluster/agent-image.ts';
import { withClusterLock } from '../cluster/lock.ts';
import { SetupError } from '../cluster/machine.ts';
import { up } from '../cluster/up.ts';

/** Vitest runs it once, before all files. */
export default async function setup(): Promise<void> {
  // Before anything is started: an older Node would leave the cluster with processes that cannot run on it.
  if (Number.parseInt(process.versions.node, 10) < 24)
    throw new Error(`Node ${process.versions.node} is too old: npm run test:kubernetes brings Node 24`);
  const given = process.env.CDE_TEST_KUBECONFIG;
  if (given) {
    if (!existsSync(given)) throw new Error(`CDE_TEST_KUBECONFIG names ${given}, which does not exist`);
    return;
  }
  try {
    process.env.CDE_TEST_KUBECONFIG = await withClusterLock(up);
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(`${error.message}; set CDE_TEST_KUBECONFIG to use an existing cluster.`);
    process.exit(1);
  }
  process.env.CDE_TEST_AGENT_IMAGE = await agentTestImage();
  // CI runs all files. A single file builds only what it needs.
  if (process.env.CI) buildImagesInBackground();
}

/** The files that need the images of docker/Dockerfile wait for them, while the others run. */
function buildImagesInBackground(): void {
  const program = fileURLToPath(new URL('cde-images.ts', import.meta.url));
  spawn(process.execPath, [program], { stdio: ['ignore', 'ignore', 'inherit'] });
}
