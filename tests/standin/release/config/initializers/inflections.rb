ActiveSupport::Inflector.inflections(:en) { |inflect| inflect.acronym "CLI" }
