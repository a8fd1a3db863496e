import type { ProviderError } from './provider.ts';

/** A failed step in words for the developer. */
export class ProviderFailure extends Error {
  readonly error: ProviderError;
  constructor(error: ProviderError) {
    super(error.message);
    this.error = error;
  }
}
