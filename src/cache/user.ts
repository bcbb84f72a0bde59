// Who asks, for routes with `scope: user`: the one place that says so. Nobody has verified the credentials yet, so it is all
// of them together, and whoever sends the same is the same user: the backend itself could not tell them apart.

import type { HeaderList } from '../core/context.ts'
import { AUTHORIZING_FIELDS } from '../http/credentials.ts'
import { digestOf } from './digest.ts'

/** The user of a request as a digest; null where it carries nothing that says who asks. All cookies count, whichever a
 *  key names: nobody has said which of them tells users apart. */
export function userOf(request: HeaderList): string | null {
  const credentials: string[] = []
  for (let i = 0; i < request.length; i += 2) {
    const name = (request[i] as string).toLowerCase()
    const value = (request[i + 1] as string).trim()
    // An empty field is what all have who have none.
    if (value !== '' && (name === 'cookie' || AUTHORIZING_FIELDS.has(name))) credentials.push(name, value)
  }
  return credentials.length === 0 ? null : digestOf(credentials)
}
