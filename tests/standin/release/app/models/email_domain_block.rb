class EmailDomainBlock < ApplicationRecord
end
