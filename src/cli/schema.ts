// `weirgate schema`: what a route table may say, as a JSON Schema for editors or as a page for people.

import { Command } from 'commander'
import { configJsonSchema } from '../config/json-schema.ts'
import { configReference } from '../config/reference-page.ts'

export const schemaCommand = () =>
  new Command('schema')
    .description("print the route table's JSON Schema")
    .option('--markdown', 'print the reference page instead')
    .action(({ markdown }: { markdown?: boolean }) => {
      if (markdown === true) process.stdout.write(configReference())
      else console.log(JSON.stringify(configJsonSchema(), null, 2))
    })
