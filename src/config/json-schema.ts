// The schema of the route table as JSON Schema, for editors: they complete keys, show each option's meaning, and mark
// what the gateway would refuse. Committed as config/weirgate.schema.json; a test holds the two equal.

import { z } from 'zod'
import { isLater } from './shapes.ts'
import { gatewaySchema } from './schema.ts'

/** Draft 7, which editors know best. Values that come from the environment (`${...}`) pass every pattern. */
export function configJsonSchema(): object {
  const schema = z.toJSONSchema(gatewaySchema, {
    io: 'input',
    target: 'draft-7',
    override: ({ zodSchema, jsonSchema }) => {
      if (!(zodSchema instanceof z.ZodObject) || jsonSchema.properties === undefined) return
      // An option that is refused for now is left out, so that an editor marks it as unknown.
      for (const [key, option] of Object.entries<z.ZodType>(zodSchema.shape)) {
        if (isLater(option)) delete jsonSchema.properties[key]
      }
    },
  })
  const { $schema, ...rest } = schema
  return { $schema, $id: 'urn:weirgate:route-table', title: 'Weirgate route table', ...rest }
}
