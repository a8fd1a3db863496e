import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Environment of the programs that tests start: Node compiles each module once for all of them. */
export const compileCache = { NODE_COMPILE_CACHE: join(tmpdir(), 'cde-test-compiled') };
