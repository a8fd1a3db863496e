import type { ProviderError } from '../../provider.ts';

/** A failure for which there is no use in trying again. */
export class MoveFailure extends Error {
  readonly error: ProviderError;
  constructor(error: ProviderError) {
    super(error.message);
    this.error = error;
  }
}
