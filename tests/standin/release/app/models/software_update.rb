class SoftwareUpdate < ApplicationRecord
  self.inheritance_column = nil
end
