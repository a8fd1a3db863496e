/**
 * What a workspace of a test reserves on the node, which has the machine's processors: with the 50m that a container reserves by
 * default, forty pods fill two of them, and others wait until a test that is done has removed its own.
 */
export const smallRequests = { cpus: 0.01, memory: '64Mi' };
