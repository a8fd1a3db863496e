/**
 * The first init container: copies the agent from its image into the volume that the workspace's containers share.
 *
 * usage: /opt/cde/node /opt/cde/install.mjs TARGET
 */
import { cp } from 'node:fs/promises';

await cp('/opt/cde', process.argv[2]!, { recursive: true, force: true });
