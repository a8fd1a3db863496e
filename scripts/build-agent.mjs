// Builds agent/dist when it is missing or its sources have changed; otherwise leaves at once. Runs on Node 24.
import { freshBundle } from '../agent/bundle.ts';

await freshBundle();
