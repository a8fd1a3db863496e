// The server's program. Imported only now: hooks do not apply to modules that are imported along with them.
import './database/drizzle-imports.ts';

await import('./program.ts');
