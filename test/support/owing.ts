// An origin that leaves each answer to the test.

import type { ServerResponse } from 'node:http'
import { until } from './gateway.ts'
import type { Script } from './origin.ts'

export interface Owing {
  readonly script: Script
  /** Answers to be given, in the order of their requests. */
  readonly owed: readonly ServerResponse[]
  /** The last of so many, once it is owed. */
  readonly owes: (count: number) => Promise<ServerResponse>
}

export function owing(): Owing {
  const owed: ServerResponse[] = []
  return {
    script: (_request, response) => void owed.push(response),
    owed,
    owes: async (count) => {
      await until(() => owed.length >= count, `request ${count} at the origin`)
      return owed[count - 1] as ServerResponse
    },
  }
}
