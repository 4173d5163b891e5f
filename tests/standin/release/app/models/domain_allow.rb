class DomainAllow < ApplicationRecord
end
