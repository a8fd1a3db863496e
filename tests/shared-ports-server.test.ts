import { describe } from 'vitest';
import { portsByName } from './shared-ports/by-name.ts';
import { usePorts } from './shared-ports/fixture.ts';

describe('ports by name, at the server', () => portsByName(usePorts('server')));
