import { config } from 'zod';

// zod would try `new Function` for speed, which the Content-Security-Policy forbids and reports. Imported before any schema.
config({ jitless: true });
