// Providers need these too, and stand below.
export { formatQuantity, parseDuration, parseQuantity } from '../providers/quantity.ts';
